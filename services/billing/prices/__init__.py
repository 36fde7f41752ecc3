"""What calls cost, and from when on: prices over time, discounts, and rating recorded calls again. How a price makes a
cost is `services.common.pricing`'s, since workers and receipts need it, too."""

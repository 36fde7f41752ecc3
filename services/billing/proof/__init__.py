"""The proof of the books: what usage, ledger, invoices, payments and payouts say, each counted by itself, compared.
Sums first; rows are walked only where sums differ. It reads, and changes nothing."""

"""Plans and who has them: periods, trials, changes and how they end. What a period costs is billed in
`services.billing.invoices`."""

"""What is written beside the outputs: ledger, receipts, failures, pages, tables. Writes below one output folder."""

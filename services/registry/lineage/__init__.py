"""What models were made from, as their cards say: edges beside models and versions, and the graph of them. A base model
that is one of Mercat's when the card comes stays that one, wherever it moves."""

"""Model cards: Markdown with YAML at its top. What that says becomes fields; the text is made safe to show. Where cards
are kept is the registry's: a model's in its description, a version's in its file of that role."""

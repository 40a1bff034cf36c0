"""The trusted gateway: it issues seeds, keeps the log, and releases nothing that is not on record.

The tap holds no weights and imports neither torch nor the model's room; whoever starts it brings the
tokenizer (`ullage.tap.choices.tokens.Tokenizer`). `docs/tap.md` says what passes it and what does not.
"""

"""Taking in chat that was written elsewhere: JSONL, Telegram Desktop exports, Discord data packages.

Each format has a module with `parse(path)`, a pure iterator over rows and bad rows; `common.import_file` writes
them. See docs/importing.md.
"""

"""The Discord bot: discord.py on the wire, `bots.core` for everything that is said and kept."""

"""The report of a campaign: several judged runs side by side, each from its own rows."""

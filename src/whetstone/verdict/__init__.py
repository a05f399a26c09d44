"""The verdict: a rule that was frozen before generation, applied to what was measured.

A gate *passes* when it is shown beyond chance, *fails* when the data exclude it, and is *open* when the data allow
both. All gates passed: SHIP. One failed: REJECT. Otherwise: INCONCLUSIVE.
"""

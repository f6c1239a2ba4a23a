"""The bake-off: which selection is best on this pool and target, and what each costs."""

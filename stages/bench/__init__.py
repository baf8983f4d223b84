"""What each benchmark measures: equal answers are asserted first, then times are compared."""

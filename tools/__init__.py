"""What the maintainer runs: notebook rules, re-execution, and the test of stored outputs."""

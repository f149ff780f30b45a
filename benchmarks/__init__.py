"""One module per question: `python -m benchmarks.NAME [--quick] [--json]`; exits 1 where a bar does not hold."""

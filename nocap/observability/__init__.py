"""What operators see of a running process: structured logs, Prometheus figures, and whether it is well.

No member's text and no platform's own id ever gets into any of them.
"""

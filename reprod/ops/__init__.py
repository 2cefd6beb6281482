"""The verbs: refresh, publish, deliver, verify, diff. They return reports and neither print nor log."""

"""What the operator sees: the address apart from the clients', figures, telemetry, the monitor."""

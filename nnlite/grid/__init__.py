"""Many nets: settings times seeds."""

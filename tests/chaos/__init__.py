"""The instrument that proves that nothing is lost, whatever dies (`make chaos`)."""

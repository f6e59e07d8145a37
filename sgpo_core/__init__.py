"""The method itself, pure: no workflow engine, no inference engine, no tracking server is imported here."""

"""Contract suites that back ends must pass, and fakes of external programs and hardware."""

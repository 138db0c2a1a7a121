"""Storage: tables, migrations, one module per aggregate. Nothing but storage."""

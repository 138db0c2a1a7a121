"""What the yard does: submit, assign, renew, finish, expire. Takes a store and a clock; knows no HTTP."""

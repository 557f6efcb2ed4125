"""The rows of a table: how they are stored and read, and the products with them."""

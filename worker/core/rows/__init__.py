"""Where the rows of a table live, and the products with them."""

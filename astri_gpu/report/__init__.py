"""The report on a production: numbers, pictures and a page that shows them."""

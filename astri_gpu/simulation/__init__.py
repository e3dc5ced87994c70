"""The fast Monte Carlo: atmosphere, light tables, camera, productions."""

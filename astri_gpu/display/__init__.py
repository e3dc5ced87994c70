"""Pictures of events: what is read from a store, and how it is drawn."""

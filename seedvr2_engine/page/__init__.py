"""The compare page: clips or pictures beside each other in one HTML file that asks no network for anything."""

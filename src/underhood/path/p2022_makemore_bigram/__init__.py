"""makemore 2022: names from pairs of letters, by counting and by one layer of a network."""

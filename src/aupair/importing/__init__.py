"""Import of labels from other layouts into the one that the flow reads; `aupair import --help` lists the kinds."""

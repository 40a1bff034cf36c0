"""Memory of a machine: what there is, mapped and locked, read in scattered blocks, declared in segments."""

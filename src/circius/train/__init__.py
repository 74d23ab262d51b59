"""Training: data, packing, loss, optimisation, adapters, runs that can be stopped anywhere."""

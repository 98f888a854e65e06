"""How the interval of each metric is computed: linearised variances, transformed scales, score intervals."""

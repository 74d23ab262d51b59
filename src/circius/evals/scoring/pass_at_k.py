"""pass@k without bias, from more samples than k."""

from math import comb

from circius.base.errors import InvalidInputError


def pass_at_k(n: int, n_passed: int, k: int) -> float:
    """How likely it is that of k samples, drawn from these n without putting back, at least one passes.

    Averaged over problems this is Codex's unbiased estimator of pass@k (arXiv 2107.03374, section 2.1). It is computed
    in whole numbers, exact for any n.

    >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 4), pass_at_k(4, 2, 2)
    (0.25, 1.0, 0.8333333333333334)

    Raises:
        InvalidInputError: not 1 <= k <= n, or not 0 <= n_passed <= n.
    """
    if not 1 <= k <= n:
        raise InvalidInputError(f"pass@k needs 1 <= k <= n samples, got k = {k} and n = {n}")
    if not 0 <= n_passed <= n:
        raise InvalidInputError(f"of {n} samples between 0 and {n} can pass, got {n_passed}")
    n_draws = comb(n, k)
    return (n_draws - comb(n - n_passed, k)) / n_draws

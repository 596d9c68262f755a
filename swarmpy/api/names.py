"""Names for services that came without one, adjective_surname as in Docker. Own words."""

from __future__ import annotations

from swarmpy.ports import Entropy

_ADJECTIVE_TEXT = """
able airy amber awake bold brave breezy bright brisk calm candid cheerful civil clear clever cosmic crisp
curious daring deft eager early earnest easy fair fearless festive fluent fond frank fresh gentle glad
golden graceful grand happy hardy hearty honest humble jolly keen kind lively lucid lucky merry mellow
mighty modest neat nimble noble patient playful polite proud quick quiet rapid ready serene sharp silent
sincere sleek smooth snug sound spirited steady sturdy subtle sunny swift tender tidy tranquil trusty upbeat
vivid warm wise witty zesty
"""
_SURNAME_TEXT = """
abel ampere avogadro babbage banach bernoulli bessel boole bose brahe cantor carnot cauchy curie dalton
darwin descartes dirac doppler einstein erdos euclid euler faraday fermat fermi feynman fibonacci fourier
franklin galileo galois gauss germain godel hamilton hawking heisenberg herschel hertz hilbert hopper
huygens hypatia jacobi joule kelvin kepler knuth kovalevskaya lagrange lamport laplace leibniz linnaeus
lovelace markov maxwell meitner mendel minkowski moebius napier newton noether ohm pascal pasteur pauli
planck poincare poisson ramanujan riemann rutherford sagan shannon tesla turing volta wiles wu yalow
"""
_ADJECTIVES = tuple(_ADJECTIVE_TEXT.split())
_SURNAMES = tuple(_SURNAME_TEXT.split())


def invent(entropy: Entropy) -> str:
    """A name such as keen_noether."""
    drawn = entropy.token(4)
    first = _ADJECTIVES[int.from_bytes(drawn[:2], "big") % len(_ADJECTIVES)]
    return f"{first}_{_SURNAMES[int.from_bytes(drawn[2:], 'big') % len(_SURNAMES)]}"

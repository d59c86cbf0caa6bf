"""The page: what every component of the model did with one picture and one prompt, in a file that opens anywhere.

:mod:`run` runs the model once and keeps what the panels need; each panel is a function of that run (:mod:`seeing`,
:mod:`attending`, :mod:`reading`, :mod:`choosing`); :mod:`page` puts them together.
"""

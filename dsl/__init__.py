"""The language of this project: what programs import (lang), hardware facts (hw), shared routines (std), and the compiler."""

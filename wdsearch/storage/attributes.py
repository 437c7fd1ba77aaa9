"""Every key that is stored on a study or on a trial in Optuna's storage. Stored studies have them: none may change."""

# a study, when it is begun
GOALS = "goals"
CONFIG = "config"
METRIC = "metric"
IDENTITY = "identity"
FOLDER = "folder"
TOKEN = "token"
VERSIONS = "versions"

# a study, while it is searched and when it is done
BASELINE = "baseline"
LINK = "link"
MEMORY = "memory"
TRAINING = "training"
INVARIANT = "scale invariant"
RATE_SUM = "rate sum"  # of the schedule's factors over all steps
INERT = "inert"  # keys of strengths that act on nothing
TARGET = "target"  # mean and scale by which the targets of a regression are standardised
EXPLANATION = "explanation"
OUTCOMES = (
    "outcomes.2:{seed}"  # of an explanation, as far as they are trained; "outcomes:" of version 0.1 lack measures
)
CONCLUDED = "concluded"
RECOMMENDATION = "recommendation"

# a sweep's study: its family, the time at which it was due, and the parameters with which it begins (`params`, `from`)
FAMILY = "family"
FIRED = "fired"
WARM = "warm"  # of a trial: what its parameters come from

# a trial
SLOT = "slot"
RESULT = "result"
ERROR = "error"
FACTS = "facts"  # of one that was the best when it ended: what the text of its training takes

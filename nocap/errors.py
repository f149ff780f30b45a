"""Every error that nocap raises on purpose.

NocapError
├── ConfigurationError      settings, key file, or what they point to is not usable        exit 2
├── InputError              what a person or a file handed in is not usable                exit 2
├── StorageError            the database cannot be used as it is                           exit 3
│   ├── KeyMismatchError    the key does not belong to this database                       exit 3
│   └── VoteWaits           the database is away; the vote is kept on disk until then      exit 3
├── ModelError              a base model or tokenizer cannot be loaded or does not fit     exit 4
│   └── AdapterError        an adapter is corrupt, unknown, or does not fit its base       exit 4
├── InferenceError          the backend did not answer as it must                          exit 5
│   ├── BackendUnavailable  it cannot be reached, is draining, or timed out                exit 5
│   ├── BackendBusy         its queue is full; carries `retry_after_seconds`               exit 5
│   │   └── BackendPaused   it has made room for a retrain on its card                     exit 5
│   ├── UnknownAdapter      this replica does not hold the adapter                         exit 5
│   ├── WrongModelAnswered  the answer names another model than the one asked for          exit 5
│   └── PromptTooLong       the prompt exceeds the model's context                         exit 5
├── RunError                a retrain cannot start, go on, or be found                     exit 6
│   ├── NothingToLearn      no eligible row is left to train on                            exit 6
│   └── OverBudget          a run costs, or would cost, more than the settings allow       exit 6
└── NotPermitted            the gates, the policy or a lease say no                        exit 7

Libraries raise these; only entry points turn them into an exit code. A message says what happened, with which
value, and what to do next, in one sentence or two.
"""

from __future__ import annotations


class NocapError(Exception):
    exit_code = 1


class ConfigurationError(NocapError):
    exit_code = 2


class InputError(NocapError):
    exit_code = 2


class StorageError(NocapError):
    exit_code = 3


class KeyMismatchError(StorageError):
    pass


class VoteWaits(StorageError):
    pass


class ModelError(NocapError):
    exit_code = 4


class AdapterError(ModelError):
    pass


class InferenceError(NocapError):
    exit_code = 5


class BackendUnavailable(InferenceError):
    pass


class BackendBusy(InferenceError):
    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class BackendPaused(BackendBusy):
    pass


class UnknownAdapter(InferenceError):
    pass


class WrongModelAnswered(InferenceError):
    pass


class PromptTooLong(InferenceError):
    pass


class RunError(NocapError):
    exit_code = 6


class NothingToLearn(RunError):
    pass


class OverBudget(RunError):
    pass


class NotPermitted(NocapError):
    exit_code = 7

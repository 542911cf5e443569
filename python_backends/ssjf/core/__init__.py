"""The scheduling core: jobs, policies, queue, admission. Plain Python; time and randomness are arguments.

The live backend and the simulator drive the same `Scheduler`:

    Job ─ submit ─► WaitingQueue ─ schedule ─► Schedule(dispatch, expired) ─ the engine runs it ─► progress… ─► finish
"""

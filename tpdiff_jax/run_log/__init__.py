"""What a run tells of itself while it trains, and where its time went.

step_window (what the device did), goodput (where the time went), cost_meter (what was spent),
progress (the terminal), sinks (the outputs by name) <- metric_writers <- run_log, which the loop
talks to. `console` sets up what else appears on the terminal.
"""

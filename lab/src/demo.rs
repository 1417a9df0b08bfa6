//! `lab demo`: the main job, shown live.

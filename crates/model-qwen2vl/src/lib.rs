//! model-qwen2vl

"""Checkpoint with Metadata: a listing of the reference page; prelude.py has what the page leaves out."""

from prelude import current_epoch, current_loss, current_lr, datetime, step, training_client, training_config

# Save checkpoint with metadata
checkpoint = training_client.save_state(
    name=f"checkpoint_step_{step}",
    metadata={
        "step": step,
        "epoch": current_epoch,
        "loss": current_loss,
        "learning_rate": current_lr,
        "timestamp": datetime.now().isoformat(),
        "dataset": "financial_corpus_v2",
        "config": training_config
    }
).result()

print(f"Checkpoint saved: {checkpoint.path}")
print(f"Metadata: {checkpoint.metadata}")

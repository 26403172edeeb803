package bios.protocol.model;

/// A linear layer that can have an adapter, with its name in Hugging Face's modules and PEFT's tensors.
public enum TargetModule {
    Q("self_attn.q_proj"), K("self_attn.k_proj"), V("self_attn.v_proj"), O("self_attn.o_proj"),
    GATE("mlp.gate_proj"), UP("mlp.up_proj"), DOWN("mlp.down_proj"), HEAD("lm_head");

    private final String path;

    TargetModule(String path) {
        this.path = path;
    }

    /// The module's path inside its layer (`self_attn.q_proj`), or `lm_head`.
    public String path() {
        return path;
    }

    /// The name that PEFT's `target_modules` uses: `q_proj`, ..., `lm_head`.
    public String peftName() {
        return path.substring(path.lastIndexOf('.') + 1);
    }
}

"""The VMX engine (SDM Vol. 3C). No VMCS field is named outside this folder."""

"""A small scheduled program as XLA prints it, written by hand so that every cost is known."""

SCAN = """\
HloModule scan, is_scheduled=true, num_partitions=8

%slice_layer (param_0: f32[3,16,8], param_1: s32[]) -> f32[16,8] {
  %param_0 = f32[3,16,8]{2,1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %layer = f32[1,16,8]{2,1,0:T(8,128)} dynamic-slice(%param_0, %param_1, %zero, %zero)
  ROOT %flat = f32[16,8]{1,0:T(8,128)} bitcast(%layer)
}

%scatter (param_0.1: f32[16,8]) -> f32[2,8] {
  %param_0.1 = f32[16,8]{1,0:T(8,128)} parameter(0)
  %all = f32[16,8]{1,0} all-reduce(%param_0.1), replica_groups=mesh['x'=1,'y'=8] {'y'}
  %at = s32[] constant(0)
  ROOT %mine = f32[2,8]{1,0:T(8,128)} dynamic-slice(%all, %at, %at), dynamic_slice_sizes={2,8}
}

%body (state: (s32[], f32[3,16,8])) -> (s32[], f32[3,16,8]) {
  %state = (s32[]{:T(128)}, f32[3,16,8]{2,1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %layers = f32[3,16,8]{2,1,0:T(8,128)} get-tuple-element(%state), index=1
  %weights = f32[16,8]{1,0:T(8,128)} fusion(%layers, %i), kind=kLoop, calls=%slice_layer
  %near = f32[16,8]{1,0:T(8,128)S(1)} copy(%weights)
  %start = (f32[16,8], f32[16,8]) collective-permute-start(%weights), source_target_pairs={{0,1}}
  %work = f32[16,8]{1,0:T(8,128)S(1)} fusion(%near), kind=kLoop, calls=%slice_layer
  %end = f32[16,8]{1,0} collective-permute-done(%start)
  %shares = f32[2,8]{1,0:T(8,128)} fusion(%weights), kind=kCustom, calls=%scatter
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  ROOT %out = (s32[]{:T(128)}, f32[3,16,8]{2,1,0:T(8,128)}) tuple(%next, %layers)
}

%cond (state.1: (s32[], f32[3,16,8])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[3,16,8]{2,1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[]{:T(512)} compare(%i.1, %three), direction=LT
}

ENTRY %main (x: f32[2,8], w: f32[3,16,8]) -> f32[16,8] {
  %x = f32[2,8]{1,0:T(8,128)} parameter(0)
  %w = f32[3,16,8]{2,1,0:T(8,128)} parameter(1)
  %first = s32[]{:T(128)} constant(0)
  %counter = s32[]{:T(128)} copy(%first)
  %init = (s32[]{:T(128)}, f32[3,16,8]{2,1,0:T(8,128)}) tuple(%counter, %w)
  %loop = (s32[]{:T(128)}, f32[3,16,8]{2,1,0:T(8,128)}) while(%init), condition=%cond, body=%body
  ROOT %gathered = f32[16,8]{1,0:T(8,128)} all-gather(%x), replica_groups=[1,8]<=[8], dimensions={0}
}
"""
"""Three trips of a loop; arrays of [16, 8] float32 have 512 bytes, [2, 8] have 64."""

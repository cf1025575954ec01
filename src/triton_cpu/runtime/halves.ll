; float16 to float32 and back, for x86 CPUs without F16C: LLVM calls these two by name.

define float @__extendhfsf2(half %x) {
  %short = bitcast half %x to i16
  %bits = zext i16 %short to i32
  %sign = and i32 %bits, 32768
  %size = and i32 %bits, 32767
  %shifted = shl i32 %size, 13
  %small = bitcast i32 %shifted to float
  %scaled = fmul float %small, 0x46F0000000000000 ; 2^112: from one bias to the other
  %finite = bitcast float %scaled to i32
  %special = or i32 %shifted, 2139095040
  %is.special = icmp uge i32 %size, 31744
  %magnitude = select i1 %is.special, i32 %special, i32 %finite
  %high = shl i32 %sign, 16
  %result = or i32 %magnitude, %high
  %value = bitcast i32 %result to float
  ret float %value
}

define half @__truncsfhf2(float %x) {
  %bits = bitcast float %x to i32
  %high = lshr i32 %bits, 16
  %sign = and i32 %high, 32768
  %size = and i32 %bits, 2147483647
  ; normal: to nearest, ties to even
  %last = lshr i32 %size, 13
  %odd = and i32 %last, 1
  %up = add i32 %odd, 4095
  %rebiased = sub i32 %size, 939524096
  %rounded = add i32 %rebiased, %up
  %normal = lshr i32 %rounded, 13
  ; subnormal: the sum's last bit is worth as much as theirs
  %positive = bitcast i32 %size to float
  %sum = fadd float %positive, 0.5
  %sum.bits = bitcast float %sum to i32
  %subnormal = sub i32 %sum.bits, 1056964608
  %is.subnormal = icmp ult i32 %size, 947912704
  %finite = select i1 %is.subnormal, i32 %subnormal, i32 %normal
  %is.large = icmp uge i32 %size, 1199566848
  %number = select i1 %is.large, i32 31744, i32 %finite
  %payload = and i32 %last, 1023
  %nan = or i32 %payload, 32256
  %is.nan = icmp ugt i32 %size, 2139095040
  %magnitude = select i1 %is.nan, i32 %nan, i32 %number
  %result = or i32 %magnitude, %sign
  %short = trunc i32 %result to i16
  %value = bitcast i16 %short to half
  ret half %value
}

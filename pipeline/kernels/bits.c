#include <stdint.h>
#include <stddef.h>
/* bits counted, reversed, spread and turned to Gray code by hand */
uint64_t bits_mix(const uint64_t*p,size_t n){
 uint64_t h=0;
 for(size_t i=0;i<n;i++){
  uint64_t x=p[i],c=x,r=x,s=x&0xffffffffu;
  c-=(c>>1)&0x5555555555555555ull;c=(c&0x3333333333333333ull)+((c>>2)&0x3333333333333333ull);
  c=(c+(c>>4))&0x0f0f0f0f0f0f0f0full;c=c*0x0101010101010101ull>>56;
  r=(r>>1&0x5555555555555555ull)|(r&0x5555555555555555ull)<<1;
  r=(r>>2&0x3333333333333333ull)|(r&0x3333333333333333ull)<<2;
  r=(r>>4&0x0f0f0f0f0f0f0f0full)|(r&0x0f0f0f0f0f0f0f0full)<<4;
  s=(s|s<<16)&0x0000ffff0000ffffull;s=(s|s<<8)&0x00ff00ff00ff00ffull;s=(s|s<<4)&0x0f0f0f0f0f0f0f0full;
  s=(s|s<<2)&0x3333333333333333ull;s=(s|s<<1)&0x5555555555555555ull;
  uint64_t low=x,steps=0;
  while(low){low&=low-1;steps+=low&3;}
  h=(h<<5|h>>59)^(c+r)^(s+(x^x>>1))^steps;
 }
 return h;
}

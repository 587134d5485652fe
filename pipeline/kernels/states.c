#include <stdint.h>
#include <stddef.h>
/* state in memory */
static uint32_t turned(uint32_t v,int k){return v<<k|v>>(32-k);}
static inline void quarter_round(uint32_t*x,int a,int b,int c,int d){
 x[a]+=x[b];x[d]=turned(x[d]^x[a],16);x[c]+=x[d];x[b]=turned(x[b]^x[c],12);
 x[a]+=x[b];x[d]=turned(x[d]^x[a],8);x[c]+=x[d];x[b]=turned(x[b]^x[c],7);
}
/* ChaCha20 of what follows 64 bytes of state */
uint64_t stream_cipher(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint32_t state[16],x[16];
 __builtin_memcpy(state,s,64);s+=64;n-=64;
 for(size_t at=0;at<n;at+=64){
  for(int i=0;i<16;i++)x[i]=state[i];
  for(int r=0;r<10;r++){
   quarter_round(x,0,4,8,12);quarter_round(x,1,5,9,13);quarter_round(x,2,6,10,14);quarter_round(x,3,7,11,15);
   quarter_round(x,0,5,10,15);quarter_round(x,1,6,11,12);quarter_round(x,2,7,8,13);quarter_round(x,3,4,9,14);
  }
  size_t count=n-at<64?n-at:64;
  for(size_t i=0;i<count;i++)d[at+i]=s[at+i]^(uint8_t)((x[i>>2]+state[i>>2])>>((i&3)*8));
  state[12]++;
 }
 return state[12];
}
/* n words of xoshiro256**, behind its state */
uint64_t word_generator(const uint8_t*unused,size_t n,uint64_t*s,size_t m){
 uint64_t word=0,*d=s+4;
 for(size_t i=0;i<n;i++){
  word=(s[1]*5<<7|s[1]*5>>57)*9;
  uint64_t shifted=s[1]<<17;
  s[2]^=s[0];s[3]^=s[1];s[1]^=s[2];s[0]^=s[3];s[2]^=shifted;s[3]=s[3]<<45|s[3]>>19;
  d[i]=word;
 }
 return word;
}
struct letter_node{uint16_t following[8];uint32_t count,depth;};
/* a tree of all texts of six letters out of eight */
uint64_t letter_tree(const uint8_t*s,size_t n,struct letter_node*nodes,size_t m){
 uint16_t used=1;
 for(size_t i=0;i+6<=n;i++){
  uint16_t at=0;
  for(size_t k=0;k<6;k++){
   uint8_t letter=s[i+k]&7;uint16_t child=nodes[at].following[letter];
   if(!child){child=used++;nodes[at].following[letter]=child;nodes[child].depth=k+1;}
   at=child;nodes[at].count++;
  }
 }
 return used;
}

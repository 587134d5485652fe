#include <stdint.h>
#include <stddef.h>
/* from one buffer to another: each reads n of what s holds and writes to d, of m bytes */
#define ROTATE(x,k) ((x)<<(k)|(x)>>(64-(k)))
static const uint8_t alphabet[64]="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* literals and copies of what was written before, as LZ4 has them */
uint64_t lz_expand(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 size_t i=0,o=0;
 while(i<n){
  uint8_t token=s[i++];size_t literals=token>>4;
  for(size_t k=0;k<literals;k++)d[o+k]=s[i+k];
  i+=literals;o+=literals;
  if(i>=n)break;
  size_t distance=s[i]|(size_t)s[i+1]<<8,length=(token&15)+4;i+=2;
  if(length==19)for(;;){uint8_t more=s[i++];length+=more;if(more!=255)break;}
  for(size_t k=0;k<length;k++){d[o]=d[o-distance];o++;}
 }
 return o;
}
uint64_t base64_encode(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 size_t i=0,o=0;
 while(i+3<=n){
  uint32_t v=(uint32_t)s[i]<<16|(uint32_t)s[i+1]<<8|s[i+2];
  d[o]=alphabet[v>>18];d[o+1]=alphabet[v>>12&63];d[o+2]=alphabet[v>>6&63];d[o+3]=alphabet[v&63];
  i+=3;o+=4;
 }
 return o;
}
/* insertions, deletions and changes from one half to the other */
uint64_t edit_distance(const uint8_t*s,size_t n,uint32_t*row,size_t m){
 const uint8_t*t=s+n;
 for(size_t j=0;j<=n;j++)row[j]=j;
 for(size_t i=0;i<n;i++){
  uint32_t diagonal=row[0];row[0]=i+1;
  for(size_t j=0;j<n;j++){
   uint32_t up=row[j+1],cost=s[i]==t[j]?diagonal:diagonal+1,less=up+1<row[j]+1?up+1:row[j]+1;
   row[j+1]=cost<less?cost:less;diagonal=up;
  }
 }
 return row[n];
}
/* one turn of Conway's game, n by n */
uint64_t life_turn(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint64_t alive=0;
 for(size_t y=1;y<n-1;y++)for(size_t x=1;x<n-1;x++){
  size_t p=y*n+x;
  uint8_t near=(s[p-n-1]&1)+(s[p-n]&1)+(s[p-n+1]&1)+(s[p+n-1]&1)+(s[p+n]&1)+(s[p+n+1]&1)+(s[p-1]&1)+(s[p+1]&1);
  if(near==3||(near==2&&(s[p]&1)==1)){d[p]=1;alive++;}else d[p]=0;
 }
 return alive;
}
/* two rounds of SipHash for each eight bytes */
uint64_t sip_rounds(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint64_t v0=0x736f6d6570736575,v1=0x646f72616e646f6d,v2=0x6c7967656e657261,v3=0x7465646279746573^m;
 for(size_t i=0;i+8<=n;i+=8){
  uint64_t w;__builtin_memcpy(&w,s+i,8);
  v3^=w;
  for(int r=0;r<2;r++){
   v0+=v1;v1=ROTATE(v1,13)^v0;v0=ROTATE(v0,32);v2+=v3;v3=ROTATE(v3,16)^v2;
   v0+=v3;v3=ROTATE(v3,21)^v0;v2+=v1;v1=ROTATE(v1,17)^v2;v2=ROTATE(v2,32);
  }
  v0^=w;
 }
 return v0^v1^v2^v3;
}
/* ways to put n queens, without recursion */
uint64_t queens(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint32_t columns[16]={0},left[16]={0},right[16]={0},free[16]={0},every=(1u<<n)-1;
 uint64_t found=0;size_t depth=0;
 free[0]=every;
 for(;;){
  if(!free[depth]){if(!depth)break;depth--;continue;}
  uint32_t place=free[depth]&-free[depth];
  free[depth]^=place;
  if(depth+1==n){found++;continue;}
  columns[depth+1]=columns[depth]|place;left[depth+1]=(left[depth]|place)<<1;right[depth+1]=(right[depth]|place)>>1;
  depth++;
  free[depth]=every&~(columns[depth]|left[depth]|right[depth]);
 }
 return found;
}
/* words into a ring of 64 and out of it, as the bytes say */
uint64_t ring_buffer(const uint8_t*s,size_t n,uint32_t*ring,size_t m){
 uint32_t head=0,tail=0;uint64_t total=0;
 for(size_t i=0;i<n;i++){
  uint8_t v=s[i];
  if((v&3)&&head-tail<64){ring[head&63]=(uint32_t)v*77;head++;}
  else if(head!=tail){total+=ring[tail&63];tail++;}
 }
 return total*31+head;
}
/* words in decimal */
uint64_t decimal_text(const uint32_t*s,size_t n,uint8_t*d,size_t m){
 uint8_t digits[10];size_t o=0;
 for(size_t i=0;i<n;i++){
  uint32_t rest=s[i];size_t k=0;
  do{digits[k++]=rest%10+'0';rest/=10;}while(rest);
  while(k>0)d[o++]=digits[--k];
  d[o++]=' ';
 }
 return o;
}
/* m steps of a machine of eight registers */
uint64_t byte_machine(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint64_t r[8]={0};size_t at=0;
 for(size_t step=0;step<m;step++){
  uint8_t operation=s[at]&7,x=s[at+1]&7,y=s[at+2]&7;
  at+=3;
  if(at+3>=n)at=0;
  switch(operation){
  case 0: r[x]+=r[y];break;
  case 1: r[x]^=r[y];break;
  case 2: r[x]=r[x]*3+1;break;
  case 3: r[x]=r[y]>>1;break;
  case 4: r[x]=s[at];break;
  case 5: if(r[x]&1)at/=2;break;
  case 6: r[x]=~r[y];break;
  default: r[x]-=r[y];
  }
 }
 return r[0]^r[1]^r[2]^r[3];
}
/* the most steps from a number below n to one */
uint64_t collatz(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint32_t longest=0;
 for(size_t i=1;i<n;i++){
  uint64_t v=i;uint32_t steps=0;
  while(v!=1){v=v&1?3*v+1:v/2;steps++;}
  if(longest<steps)longest=steps;
 }
 return longest;
}
/* means of nine, n by n */
uint64_t box_blur(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 for(size_t y=1;y<n-1;y++)for(size_t x=1;x<n-1;x++){
  uint32_t total=0;
  for(size_t dy=0;dy<3;dy++)for(size_t dx=0;dx<3;dx++)total+=s[(y+dy-1)*n+x+dx-1];
  d[y*n+x]=total/9;
 }
 return d[n+1];
}
/* a filter of eight words that saturates */
uint64_t filter_words(const int16_t*s,size_t n,int16_t*d,size_t m){
 for(size_t i=8;i<n;i++){
  int32_t total=0;
  for(size_t k=0;k<8;k++)total+=s[i-k]*((int32_t)k*3-7);
  total>>=4;
  if(total>32767)total=32767;
  if(total<-32768)total=-32768;
  d[i]=total;
 }
 return (uint16_t)d[n-1];
}

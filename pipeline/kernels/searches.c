#include <stdint.h>
#include <stddef.h>
struct row{uint64_t key,value;};

/* words looked up in a table of 1024 rows, sorted by key */
uint64_t row_search(const uint64_t*keys,size_t n,const struct row*rows,size_t m){
 uint64_t found=0;
 for(size_t i=0;i<n;i++){
  uint64_t key=keys[i]&0xffff,low=0,high=1024;
  while(low<high){uint64_t middle=(low+high)/2;if(rows[middle].key<key)low=middle+1;else high=middle;}
  if(low<1024&&rows[low].key==key)found+=rows[low].value;
 }
 return found;
}
/* words, numbers, strings and comments counted by a machine of six states */
uint64_t token_states(const uint8_t*s,size_t n,uint8_t*d,size_t m){
 uint64_t words=0,numbers=0,strings=0,comments=0;uint32_t state=0;
 for(size_t i=0;i<n;i++){
  uint8_t c=s[i];
  if(state==0){
   if(c>=0x61&&c<=0x7a){state=1;words++;}
   else if(c>=0x30&&c<=0x39){state=2;numbers++;}
   else if(c==0x22){state=3;strings++;}
   else if(c==0x23){state=4;comments++;}
  }else if(state==1){if(!((c>=0x61&&c<=0x7a)||(c>=0x30&&c<=0x39)))state=0;}
  else if(state==2){if(c<0x30||c>0x39)state=0;}
  else if(state==3){if(c==0x5c)state=5;else if(c==0x22)state=0;}
  else if(state==4){if(c==0x0a)state=0;}
  else state=3;
 }
 return words|numbers<<16|strings<<32|comments<<48;
}
/* the most that fits into 256 */
uint64_t knapsack(const uint8_t*s,size_t n,uint32_t*best,size_t m){
 for(size_t w=0;w<257;w++)best[w]=0;
 for(size_t i=0;i<n;i++){
  size_t weight=s[2*i]+1;uint32_t value=s[2*i+1];
  for(size_t w=256;w>=weight;w--){uint32_t taken=best[w-weight]+value;if(taken>best[w])best[w]=taken;}
 }
 return best[256];
}

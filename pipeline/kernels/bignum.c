#include <stdint.h>
#include <stddef.h>
#if defined(__SIZEOF_INT128__)
#define MUL(hi,lo,a,b) do{unsigned __int128 t_=(unsigned __int128)(a)*(b);lo=(uint64_t)t_;hi=(uint64_t)(t_>>64);}while(0)
#else
#define MUL(hi,lo,a,b) do{uint64_t a_=(a),b_=(b),al=a_&0xffffffffu,ah=a_>>32,bl=b_&0xffffffffu,bh=b_>>32;uint64_t p0=al*bl,p1=al*bh,p2=ah*bl,p3=ah*bh;uint64_t m=(p0>>32)+(p1&0xffffffffu)+(p2&0xffffffffu);lo=(p0&0xffffffffu)|(m<<32);hi=p3+(p1>>32)+(p2>>32)+(m>>32);}while(0)
#endif
/* r[2n] = a[n] * b[n], school method */
void big_multiply(uint64_t*r,const uint64_t*a,const uint64_t*b,size_t n){
 for(size_t i=0;i<2*n;i++)r[i]=0;
 for(size_t i=0;i<n;i++){
  uint64_t carry=0;
  for(size_t j=0;j<n;j++){
   uint64_t hi,lo;MUL(hi,lo,a[i],b[j]);
   lo+=r[i+j];hi+=lo<r[i+j];lo+=carry;hi+=lo<carry;
   r[i+j]=lo;carry=hi;
  }
  r[i+n]=carry;
 }
}
/* r = a + b, the carry out */
uint64_t big_add(uint64_t*r,const uint64_t*a,const uint64_t*b,size_t n){
 uint64_t carry=0;
 for(size_t i=0;i<n;i++){uint64_t s=a[i]+carry;carry=s<carry;uint64_t t=s+b[i];carry+=t<s;r[i]=t;}
 return carry;
}
